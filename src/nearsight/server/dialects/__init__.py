"""What clients of other services send, and how they want to be answered; one module for each client."""
