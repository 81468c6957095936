"""`python -m talkgs_cli` is the same as `talkgs`."""

from talkgs_cli.app import main

if __name__ == "__main__":
    main()
