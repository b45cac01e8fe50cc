"""`python -m keystrand`."""

from keystrand.cli import main

if __name__ == "__main__":
    main()
