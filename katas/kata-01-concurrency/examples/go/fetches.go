package main

import (
	"context"
	"log"
)

// A channel with room for `limit` is a semaphore: a permit is a place in it.
type fetches struct {
	slow    slowService
	permits chan struct{}
}

func newFetches(slow slowService, limit int) *fetches {
	return &fetches{slow, make(chan struct{}, limit)}
}

// fetch gives its permit back in a defer: at the end, at an error, and when the caller has hung up,
// which cancels the context.
func (f *fetches) fetch(ctx context.Context, id string) error {
	select {
	case f.permits <- struct{}{}:
	case <-ctx.Done():
		return errFetchFailed // nobody hears it
	}
	defer func() { <-f.permits }()
	if err := f.slow.fetch(ctx, id); err != nil {
		log.Printf("thing %s: %v", id, err)
		return errFetchFailed
	}
	return nil
}
