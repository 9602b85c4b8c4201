"""What the code, the text and the forms of a notebook mean, without running any of it."""
