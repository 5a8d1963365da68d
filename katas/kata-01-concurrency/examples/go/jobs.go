package main

import (
	"log"
	"sync"
)

type stats struct {
	Queued  int `json:"queued"`
	Running int `json:"running"`
	Done    int `json:"done"`
	Refused int `json:"refused"`
}

// A channel with room for `limit` jobs is the queue. The counts change under one mutex together
// with it, so that they add up whenever somebody looks.
type jobs struct {
	slow  slowService
	queue chan string
	mutex sync.Mutex
	stats stats
}

func newJobs(slow slowService, limit, workers int) *jobs {
	j := &jobs{slow: slow, queue: make(chan string, limit)}
	for i := 0; i < workers; i++ {
		go j.work()
	}
	return j
}

// accept never waits: `select` with a `default` takes the place that is there, or none.
func (j *jobs) accept(job string) bool {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	select {
	case j.queue <- job:
		j.stats.Queued++
		return true
	default:
		j.stats.Refused++
		return false
	}
}

func (j *jobs) work() {
	for job := range j.queue {
		j.count(func(s *stats) { s.Queued--; s.Running++ })
		// A failure is the job's end, not the worker's. It is not sent again: it may be done.
		if err := j.slow.do(job); err != nil {
			log.Printf("job %s: %v", job, err)
		}
		j.count(func(s *stats) { s.Running--; s.Done++ })
	}
}

func (j *jobs) count(change func(*stats)) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	change(&j.stats)
}

func (j *jobs) now() stats {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	return j.stats
}
