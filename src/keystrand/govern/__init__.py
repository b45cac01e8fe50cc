"""Who may administer a site: roles, grants, and operations that need several people. No I/O."""
