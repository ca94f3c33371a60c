package resume

import "time"

// Age makes all that was noted of tickets older.
func Age(c *Cache, by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.entries {
		c.entries[i].protected = c.entries[i].protected.Add(-by)
	}
}
