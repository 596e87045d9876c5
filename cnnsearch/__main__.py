"""Entry point of `python -m cnnsearch`, the same as the console script."""

from cnnsearch.cli import main

if __name__ == "__main__":
    main()
