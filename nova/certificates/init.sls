# Certificates of the formula's own authority: this node's keys, what is signed for them, the files.
include:
  - nova.certificates.signed
  - nova.certificates.placed
