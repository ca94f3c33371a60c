package agent

import "syscall"

// ownerOnly leaves it to the rights of the directory, which sockets inherit here.
func ownerOnly(string, string, syscall.RawConn) error { return nil }
