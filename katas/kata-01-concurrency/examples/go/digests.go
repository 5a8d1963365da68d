package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
)

// How many rounds are computed between two looks at whether somebody still waits.
const patch = 1024

// digest computes on the goroutine of its request. Go's scheduler interrupts it and has as many
// threads as there are cores, so there is nothing to move anywhere.
func digest(ctx context.Context, seed string, rounds uint64) string {
	bytes := sha256.Sum256([]byte(seed))
	for round := uint64(1); round < rounds; round++ {
		if round%patch == 0 && ctx.Err() != nil {
			break // nobody hears what comes out
		}
		bytes = sha256.Sum256(bytes[:])
	}
	return hex.EncodeToString(bytes[:])
}
