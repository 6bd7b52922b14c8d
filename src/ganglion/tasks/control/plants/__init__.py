"""The plants of the task, one family a file."""
