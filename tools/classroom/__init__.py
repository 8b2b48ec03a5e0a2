"""给老师用：发布学生版的 notebook，批改一个文件夹的作业。`python -m tools.classroom release|grade 文件夹`。只是铺路石（plumbing）。"""
