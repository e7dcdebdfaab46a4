"""One module for each command, with `run(config)`; heavy imports wait until it is called."""
