package service

// maxLineage bounds the walk to a process's ancestors.
const maxLineage = 64

// belongsTo reports whether a process is the leader of a group, a member of the group or a descendant of the leader. A
// process that left both ways cannot be told from a stranger (G-18).
func belongsTo(pid, leader int) bool {
	if pid == leader {
		return true
	}
	for range maxLineage {
		if pid <= 1 {
			return false
		}
		parent, group, err := parentOf(pid)
		if err != nil {
			return false
		}
		if parent == leader || group == leader {
			return true
		}
		pid = parent
	}
	return false
}
