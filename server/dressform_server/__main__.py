"""``python -m dressform_server REPOSITORY``: the same as ``dressform serve REPOSITORY``."""

import sys

from dressform_server.launcher import main

if __name__ == "__main__":
    sys.exit(main())
