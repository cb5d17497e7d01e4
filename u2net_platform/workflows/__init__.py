"""What each command does, free of the terminal: the steps between a request and its result."""
