package batch

import "testing"

// add puts items with these numbers, which have room.
func add(q *queue[int], from, to int) {
	for n := from; n < to; n++ {
		q.room <- struct{}{}
		q.put(n)
	}
}

// takeAll takes items with these numbers, in this order, and nothing else.
func takeAll(t *testing.T, q *queue[int], from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if got, ok := q.tryTake(); !ok || got != n {
			t.Fatalf("took %d, %v; want %d", got, ok, n)
		}
	}
}

func TestQueueKeepsOrder(t *testing.T) {
	q := newQueue[int](100, 10)
	add(q, 0, 3)
	takeAll(t, q, 0, 2)
	add(q, 3, 100)
	if q.len() != 98 {
		t.Errorf("%d items, want 98", q.len())
	}
	takeAll(t, q, 2, 100)
	add(q, 100, 101)
	takeAll(t, q, 100, 101)
	if _, ok := q.tryTake(); ok || q.len() != 0 {
		t.Error("there is more than was put")
	}
}

// The memory is that of the items, whatever the bound, and goes with them.
func TestQueueGrowsAndShrinks(t *testing.T) {
	const bound, keep = 1 << 17, 64
	q := newQueue[int](bound, keep)
	held := func() int { return cap(q.in) + cap(q.out) }
	if held() != 0 {
		t.Errorf("an empty queue holds %d places", held())
	}
	add(q, 0, bound)
	takeAll(t, q, 0, bound/2)
	add(q, 0, bound/2) // the second half is still there
	takeAll(t, q, bound/2, bound)
	takeAll(t, q, 0, bound/2)
	if held() > 2*keep {
		t.Errorf("an emptied queue holds %d places, want %d at most", held(), 2*keep)
	}
	for range 3 {
		add(q, 0, keep/2)
		takeAll(t, q, 0, keep/2)
	}
	if held() == 0 {
		t.Error("a small queue takes new memory all the time")
	}
}

func TestClosedQueueIsEmptiedFirst(t *testing.T) {
	q := newQueue[int](4, 4)
	add(q, 0, 2)
	q.close()
	takeAll(t, q, 0, 1)
	if n, ok := q.take(); !ok || n != 1 {
		t.Errorf("took %d, %v", n, ok)
	}
	if _, ok := q.take(); ok {
		t.Error("took from an empty, closed queue")
	}
	if _, ok := q.tryTake(); ok {
		t.Error("took from an empty, closed queue")
	}
}
