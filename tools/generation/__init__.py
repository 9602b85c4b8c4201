"""What is written into notebooks and documents from a schema and an outline."""
