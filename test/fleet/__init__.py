"""The lab's fleet: real hosts in containers, and what the formula finds in place on them."""
