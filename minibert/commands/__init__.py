"""The three commands, each a story, and the process around them."""
