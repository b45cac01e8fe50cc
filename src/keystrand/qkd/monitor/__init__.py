"""What the blocks of a link say about the fibre: the link's own usual, what has left it, and what that means."""
