"""What is promised under faults, and the tests that try to break it."""
