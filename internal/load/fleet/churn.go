package fleet

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"time"
)

// churnTick is how often clients come and go.
const churnTick = 20 * time.Millisecond

// Churn makes clients come and go: each is online and away in turn, for random times with these means.
type Churn struct {
	Online, Away time.Duration
	Seed         uint64
}

// turn is when a client goes or comes.
type turn struct {
	at     time.Time
	client *client
	online bool // what it becomes
}

// turns is a heap of them.
type turns []turn

func (t turns) Len() int           { return len(t) }
func (t turns) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t turns) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *turns) Push(x any)        { *t = append(*t, x.(turn)) }
func (t *turns) Pop() any {
	last := len(*t) - 1
	x := (*t)[last]
	*t = (*t)[:last]
	return x
}

// StartChurn makes clients come and go. Those that are away by the means of the two times go at once.
func (f *Fleet) StartChurn(c Churn) {
	f.churn.halt()
	f.churn.begin(f.life, func(ctx context.Context) { f.comeAndGo(ctx, c) })
}

// StopChurn brings all clients back.
func (f *Fleet) StopChurn() {
	f.churn.halt()
	f.Connect()
}

func (f *Fleet) comeAndGo(ctx context.Context, c Churn) {
	random := rand.New(rand.NewPCG(c.Seed, uint64(f.job.First)))
	lasts := func(mean time.Duration) time.Duration { return time.Duration(random.ExpFloat64() * float64(mean)) }
	ticker := time.NewTicker(churnTick)
	defer ticker.Stop()
	plan := make(turns, 0, len(f.clients))
	now := time.Now()
	for _, client := range f.clients {
		away := random.Float64() < float64(c.Away)/float64(c.Online+c.Away)
		client.wantOnline(!away)
		if away {
			plan = append(plan, turn{now.Add(lasts(c.Away)), client, true})
		} else {
			plan = append(plan, turn{now.Add(lasts(c.Online)), client, false})
		}
	}
	heap.Init(&plan)
	for {
		select {
		case <-ctx.Done():
			return
		case now = <-ticker.C:
		}
		for len(plan) > 0 && plan[0].at.Before(now) && ctx.Err() == nil {
			next := &plan[0]
			next.client.wantOnline(next.online)
			if next.online {
				next.at = next.at.Add(lasts(c.Online))
			} else {
				next.at = next.at.Add(lasts(c.Away))
			}
			next.online = !next.online
			heap.Fix(&plan, 0)
		}
	}
}
