"""`python -m tools.notebooks run|build|refresh|check|results [NN …]`。"""

import sys

from tools.notebooks.manage import main

sys.exit(main())
