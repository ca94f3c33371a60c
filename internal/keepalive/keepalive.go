// Package keepalive finds out which peers of idle connections are gone. The kernel asks them; nothing wakes up here.
//
// Connections that were busy at the same moment, because a broadcast or the end of an outage reached all of them, would also be
// asked at the same moment, and from then on for ever: thousands of packets in a row, more than queues on the way hold. Whoever is
// always at the end of such a burst is never heard, and loses a good connection. So each connection has intervals of its own.
package keepalive

import (
	"math/rand/v2"
	"net"
	"time"
)

// A connection is silent for idleMin to idleMax before its peer is asked, then every intervalMin to intervalMax, probes times.
// A peer that is gone is thus found out within three minutes.
const (
	idleMin, idleMax         = 45 * time.Second, 75 * time.Second
	intervalMin, intervalMax = 10 * time.Second, 20 * time.Second
	probes                   = 5
)

// Listener gives the TCP connections that it accepts their intervals.
type Listener struct{ net.Listener }

// Accept returns the next connection.
func (l Listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(intervals()) // fails when the connection has ended, which its first read tells
	}
	return conn, err
}

// intervals draws those of one connection. The system counts in seconds.
func intervals() net.KeepAliveConfig {
	return net.KeepAliveConfig{
		Enable: true, Idle: between(idleMin, idleMax), Interval: between(intervalMin, intervalMax), Count: probes,
	}
}

func between(least, most time.Duration) time.Duration {
	return least + rand.N((most-least)/time.Second+1)*time.Second
}
