"""What plays the providers in tests: one module for each, over real sockets."""
