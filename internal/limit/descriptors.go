package limit

import (
	"fmt"
	"math"
)

// MaxConnections is how many connections the process may hold when reserve descriptors are to be left for everything else.
// It fails when the process may not even open those.
func MaxConnections(reserve int) (int, error) {
	descriptors, err := maxDescriptors()
	if err != nil {
		return 0, fmt.Errorf("limit: reading the limit of open files: %w", err)
	}
	descriptors = min(descriptors, math.MaxInt32)
	if reserve < 0 || descriptors <= uint64(reserve) {
		return 0, fmt.Errorf("limit: the process may open %d files, and %d are to be left: raise the limit (ulimit -n, LimitNOFILE=)",
			descriptors, reserve)
	}
	return int(descriptors) - reserve, nil
}
