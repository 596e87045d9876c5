"""Between this and other tools: trials go out to them, sweeps that they ran come in, and their search spaces too."""
