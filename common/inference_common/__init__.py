"""What the three components agree on: names, revisions, and how a service is set up."""
