// Kata 01, "the last unit in stock is sold once", in Go: the HTTP side. For the ideas, read
// stock.go, jobs.go, fetches.go and digests.go, in this order.
package main

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	maxBodyBytes = 64 * 1024
	maxNumber    = 1<<53 - 1 // the largest whole number that every JSON reader keeps exact
)

var nameForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// A server holds what the handlers share.
type server struct {
	stock   map[string]stock // by style
	jobs    *jobs
	fetches *fetches
}

// A refusal is an answer that is no success.
type refusal struct {
	status int
	title  string
}

func (r refusal) Error() string { return r.title }

var (
	errNotFound    = refusal{404, "There is nothing here"}
	errUnknown     = refusal{404, "There is no such article"}
	errSoldOut     = refusal{409, "There is not enough of it"}
	errNotApproved = refusal{503, "The sale was not approved; nothing was sold"}
	errOwnerFailed = refusal{500, "It could not be sold, and nothing was"}
	errQueueFull   = refusal{503, "The queue is full"}
	errFetchFailed = refusal{502, "The thing could not be fetched"}
)

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, body, err := s.route(r)
	if err == nil {
		answer(w, status, "application/json", body)
		return
	}
	var refused refusal
	if !errors.As(err, &refused) {
		log.Print(err)
		refused = refusal{500, "Something is wrong on our side"}
	}
	if refused == errQueueFull {
		w.Header().Set("Retry-After", "1")
	}
	problem := map[string]any{"title": refused.title, "status": refused.status}
	answer(w, refused.status, "application/problem+json", problem)
}

func answer(w http.ResponseWriter, status int, mediaType string, body any) {
	if body == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // whoever hung up does not hear it
}

func (s *server) route(r *http.Request) (int, any, error) {
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	route := r.Method + " " + path[0]
	if len(path) >= 3 && path[1] == "stock" {
		kept, known := s.stock[path[0]]
		if !known {
			return 0, nil, errNotFound
		}
		return serveStock(kept, r, path[2], path[3:])
	}
	switch {
	case r.URL.Path == "/health" && r.Method == "GET":
		return 200, map[string]string{"status": "ok"}, nil
	case r.URL.Path == "/jobs/stats" && r.Method == "GET":
		return 200, s.jobs.now(), nil
	case len(path) == 1 && route == "POST jobs":
		return s.postJob(r)
	case len(path) == 1 && route == "POST fetches":
		return s.postFetch(r)
	case len(path) == 1 && route == "POST digests":
		return postDigest(r)
	}
	return 0, nil, errNotFound
}

func serveStock(kept stock, r *http.Request, sku string, rest []string) (int, any, error) {
	switch {
	case r.Method == "GET" && len(rest) == 0:
		quantity, err := kept.look(sku)
		return 200, map[string]uint64{"quantity": quantity}, err
	case r.Method == "PUT" && len(rest) == 0:
		quantity, err := quantityIn(r, 0)
		if err != nil {
			return 0, nil, err
		}
		kept.put(sku, quantity)
		return 204, nil, nil
	case r.Method == "POST" && len(rest) == 1 && rest[0] == "reserve":
		quantity, err := quantityIn(r, 1)
		if err != nil {
			return 0, nil, err
		}
		remaining, err := kept.reserve(sku, quantity)
		return 200, map[string]uint64{"remaining": remaining}, err
	}
	return 0, nil, errNotFound
}

func (s *server) postJob(r *http.Request) (int, any, error) {
	var body struct {
		JobID *string `json:"job_id"`
	}
	if err := read(r, &body); err != nil {
		return 0, nil, err
	}
	if body.JobID == nil || !nameForm.MatchString(*body.JobID) {
		return 0, nil, refusal{422, "job_id must be 1 to 64 of A-Z a-z 0-9 . _ -"}
	}
	if !s.jobs.accept(*body.JobID) {
		return 0, nil, errQueueFull
	}
	return 202, nil, nil
}

func (s *server) postFetch(r *http.Request) (int, any, error) {
	var body struct {
		ID *string `json:"id"`
	}
	if err := read(r, &body); err != nil {
		return 0, nil, err
	}
	if body.ID == nil || !nameForm.MatchString(*body.ID) {
		return 0, nil, refusal{422, "id must be 1 to 64 of A-Z a-z 0-9 . _ -"}
	}
	err := s.fetches.fetch(r.Context(), *body.ID)
	return 200, map[string]string{"id": *body.ID}, err
}

func postDigest(r *http.Request) (int, any, error) {
	var body struct {
		Seed   *string `json:"seed"`
		Rounds uint64  `json:"rounds"`
	}
	if err := read(r, &body); err != nil {
		return 0, nil, err
	}
	if body.Seed == nil || body.Rounds < 1 || body.Rounds > maxNumber {
		return 0, nil, refusal{422, "seed must be a text, rounds from 1 to 2^53 - 1"}
	}
	digest := digest(r.Context(), *body.Seed, body.Rounds)
	return 200, map[string]string{"digest": digest}, nil
}

func quantityIn(r *http.Request, least uint64) (uint64, error) {
	var body struct {
		Quantity *uint64 `json:"quantity"`
	}
	if err := read(r, &body); err != nil {
		return 0, err
	}
	if body.Quantity == nil || *body.Quantity < least || *body.Quantity > maxNumber {
		return 0, refusal{422, "quantity must be a whole number within the limits"}
	}
	return *body.Quantity, nil
}

func read(r *http.Request, into any) error {
	mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(mediaType), "application/json") {
		return refusal{415, "Content-Type must be application/json"}
	}
	bytes, err := io.ReadAll(io.LimitReader(r.Body, maxBodyBytes+1))
	if err != nil || len(bytes) > maxBodyBytes {
		return refusal{400, "The body cannot be read"}
	}
	if !json.Valid(bytes) {
		return refusal{400, "The body is not JSON"}
	}
	if err := json.Unmarshal(bytes, into); err != nil {
		return refusal{422, "The body is not valid"}
	}
	return nil
}

// number reads a variable that the contract promises.
func number(name string) int {
	value, err := strconv.Atoi(os.Getenv(name))
	if err != nil || value < 1 {
		log.Fatalf("%s must be a whole number of at least 1", name)
	}
	return value
}

func main() {
	// A connection for each call: one that is kept may be dead, and a call on it in doubt.
	client := &http.Client{
		Timeout:   60 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	approvals := approvals{client, os.Getenv("APPROVAL_URL") + "/approvals"}
	slow := slowService{client, os.Getenv("SLOW_URL")}
	server := &server{
		stock: map[string]stock{
			"naive":  newNaive(approvals),
			"lock":   newLocked(approvals),
			"worker": newOwned(approvals),
		},
		jobs:    newJobs(slow, number("QUEUE_LIMIT"), number("QUEUE_WORKERS")),
		fetches: newFetches(slow, number("FETCH_LIMIT")),
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), server))
}
