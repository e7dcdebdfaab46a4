"""One module for each command, with `run(settings)`; heavy imports wait until it is called."""
