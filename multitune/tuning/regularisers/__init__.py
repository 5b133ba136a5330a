"""What keeps a model near to something: penalties on what moves, and how far it went from where it started."""
