package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Whoever has to approve a sale.
type approvals struct {
	client *http.Client
	url    string
}

// ask asks once. Whatever is no 204 is no approval.
func (a approvals) ask(sku string, quantity uint64) error {
	order := map[string]any{"sku": sku, "quantity": quantity}
	status, err := post(a.client, a.url, order)
	if err != nil || status != http.StatusNoContent {
		return errNotApproved
	}
	return nil
}

type slowService struct {
	client *http.Client
	url    string
}

// do sends a job once. A POST with a body is not repeated by net/http on its own.
func (s slowService) do(job string) error {
	status, err := post(s.client, s.url+"/jobs", map[string]string{"job_id": job})
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("the slow service answered %d", status)
	}
	return err
}

func (s slowService) fetch(ctx context.Context, id string) error {
	request, err := http.NewRequestWithContext(ctx, "GET", s.url+"/things/"+id, nil)
	if err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	discard(response)
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("the slow service answered %d", response.StatusCode)
	}
	return nil
}

func post(client *http.Client, url string, body any) (int, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	response, err := client.Post(url, "application/json", bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	discard(response)
	return response.StatusCode, nil
}

func discard(response *http.Response) {
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
}
