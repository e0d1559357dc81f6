"""The same work beside its peers, in one run; needs the extra `bench`."""
