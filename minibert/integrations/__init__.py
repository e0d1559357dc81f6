"""minibert by the conventions of other libraries."""
