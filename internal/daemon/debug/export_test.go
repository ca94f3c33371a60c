package debug

// MaxConnections is a bound that tests reach.
const MaxConnections = maxConnections
