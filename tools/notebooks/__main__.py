"""`python -m tools.notebooks run|build|refresh|check|results [哪几本 …]`。"""

import sys

from tools.notebooks.manage import main

sys.exit(main())
