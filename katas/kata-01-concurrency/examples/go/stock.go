package main

import (
	"log"
	"sync"
	"time"
)

// Stock, in one of three styles.
type stock interface {
	look(sku string) (uint64, error)
	put(sku string, quantity uint64)
	reserve(sku string, quantity uint64) (uint64, error)
}

// A shelf is a map behind a mutex. There is no data race in it, whatever its callers do with it.
type shelf struct {
	mutex sync.Mutex
	left  map[string]uint64
}

func newShelf() *shelf { return &shelf{left: map[string]uint64{}} }

func (s *shelf) look(sku string) (uint64, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	left, known := s.left[sku]
	if !known {
		return 0, errUnknown
	}
	return left, nil
}

func (s *shelf) put(sku string, quantity uint64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.left[sku] = quantity
}

// take decides and takes, under one lock.
func (s *shelf) take(sku string, quantity uint64) (uint64, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return takeFrom(s.left, sku, quantity)
}

// takeFrom needs the map for itself.
func takeFrom(left map[string]uint64, sku string, quantity uint64) (uint64, error) {
	there, known := left[sku]
	switch {
	case !known:
		return 0, errUnknown
	case there < quantity:
		return 0, errSoldOut
	}
	left[sku] = there - quantity
	return there - quantity, nil
}

// naive reads, asks, and writes back what it read: the race that step 1 wants. Every single access
// is locked, so `go run -race` finds nothing: a race condition is not a data race.
type naive struct {
	*shelf
	approvals approvals
}

func newNaive(approvals approvals) *naive { return &naive{newShelf(), approvals} }

func (n *naive) reserve(sku string, quantity uint64) (uint64, error) {
	there, err := n.look(sku)
	if err != nil {
		return 0, err
	}
	if there < quantity {
		return 0, errSoldOut
	}
	if err := n.approvals.ask(sku, quantity); err != nil {
		return 0, err
	}
	n.put(sku, there-quantity)
	return there - quantity, nil
}

// locked asks first, without the lock, and takes under it.
type locked struct {
	*shelf
	approvals approvals
}

func newLocked(approvals approvals) *locked { return &locked{newShelf(), approvals} }

func (l *locked) reserve(sku string, quantity uint64) (uint64, error) {
	if _, err := l.look(sku); err != nil {
		return 0, err
	}
	if err := l.approvals.ask(sku, quantity); err != nil {
		return 0, err
	}
	return l.take(sku, quantity)
}

// owned keeps its stock in one goroutine, which takes one message after the other. Here a message
// is a function: what to do with the map, and how to answer.
type owned struct {
	messages  chan func(left map[string]uint64)
	approvals approvals
}

const (
	inbox  = 16 // whoever finds it full waits to send
	doomed = 666
)

func newOwned(approvals approvals) *owned {
	o := &owned{make(chan func(map[string]uint64), inbox), approvals}
	go o.own()
	return o
}

// own never ends. Stock and channel live out here, and what may fail does so in handle: so a
// failure costs its own message and nothing else.
func (o *owned) own() {
	left := map[string]uint64{}
	for message := range o.messages {
		handle(message, left)
	}
}

func handle(message func(map[string]uint64), left map[string]uint64) {
	defer func() {
		if failure := recover(); failure != nil {
			log.Print("the owner failed, and goes on: ", failure)
		}
	}()
	message(left)
}

type outcome struct {
	left uint64
	err  error
}

// ask sends work to the owner and waits for what comes of it.
func (o *owned) ask(work func(left map[string]uint64) outcome) (uint64, error) {
	answer := make(chan outcome, 1) // room for one, so that the owner never waits for a caller
	o.messages <- func(left map[string]uint64) {
		result := outcome{err: errOwnerFailed} // unless it comes to an end
		defer func() { answer <- result }()
		result = work(left)
	}
	result := <-answer
	return result.left, result.err
}

func (o *owned) look(sku string) (uint64, error) {
	return o.ask(func(left map[string]uint64) outcome {
		there, known := left[sku]
		if !known {
			return outcome{err: errUnknown}
		}
		return outcome{left: there}
	})
}

func (o *owned) put(sku string, quantity uint64) {
	_, _ = o.ask(func(left map[string]uint64) outcome {
		left[sku] = quantity
		return outcome{}
	})
}

func (o *owned) reserve(sku string, quantity uint64) (uint64, error) {
	if _, err := o.look(sku); err != nil {
		return 0, err
	}
	// Asked here, and not by the owner, who would answer nobody meanwhile.
	if err := o.approvals.ask(sku, quantity); err != nil {
		return 0, err
	}
	return o.ask(func(left map[string]uint64) outcome {
		if quantity == doomed {
			time.Sleep(500 * time.Millisecond)
			panic("an order for 666")
		}
		remaining, err := takeFrom(left, sku, quantity)
		return outcome{remaining, err}
	})
}
