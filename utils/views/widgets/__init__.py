"""能点的小部件，连同它们的 JavaScript 和样式。"""
