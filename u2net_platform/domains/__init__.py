"""What a domain declares, and where domains are found."""
