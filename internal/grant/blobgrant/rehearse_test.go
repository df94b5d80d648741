package blobgrant_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"sallyport/internal/grant"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// stand gives the neutral answer, or another.
type stand struct {
	answer string
	asked  int
}

func (s *stand) Takes(*grant.Caller) bool { return true }

func (s *stand) Answer(_ context.Context, _ *grant.Call, p grant.Planned) (grant.Reply, bool, error) {
	s.asked++
	if s.answer != "" {
		return grant.Reply{JSON: []byte(s.answer), Body: []byte("of the fixture")}, false, nil
	}
	return *p.Neutral, false, nil
}

func (d *door) rehearse(op, request, body string, s *stand) (grant.Reply, error) {
	reply, _, err := d.Door.(grant.Rehearser).Rehearse(d.t.Context(), &grant.Call{Caller: d.caller, Op: op, Request: []byte(request), Body: []byte(body)}, s)
	return reply, err
}

// TestRehearse: a bucket is empty and takes everything that it would take in truth, and stays as it is.
func TestRehearse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.door(t, "shop", manifest.BlobGrant{Bucket: "pictures", ObjectSize: 100})
	d.do("put", `{"name":"x"}`, []byte("real"))
	made := fmt.Sprintf(`{"digest":%q,"size":4,"version":1}`, sum([]byte("mine")))
	for _, tt := range []struct{ op, request, answer, want string }{
		{"get", `{"name":"x"}`, "", `null`},
		{"stat", `{"name":"x"}`, "", `null`},
		{"list", `{}`, "", `{"objects":[]}`},
		{"delete", `{"name":"x"}`, "", `{"deleted":true}`},
		{"put", `{"name":"x"}`, "", made},
		{"get", `{"name":"x"}`, `{"digest":"sha256:00","size":14,"version":3}`, `{"digest":"sha256:00","size":14,"version":3}`},
		{"delete", `{"name":"x"}`, `{"deleted":false}`, `{"deleted":false}`},
	} {
		reply, err := d.rehearse(tt.op, tt.request, "mine", &stand{answer: tt.answer})
		if got := string(reply.JSON); err != nil || got != tt.want {
			t.Errorf("%s %s = %s, %v; want %s", tt.op, tt.request, got, err, tt.want)
		}
	}
	if reply, err := d.rehearse("get", `{"name":"x"}`, "", &stand{answer: `{"digest":"","size":14,"version":3}`}); err != nil || string(reply.Body) != "of the fixture" {
		t.Errorf("the content is %q, %v", reply.Body, err)
	}
	for _, tt := range []struct{ op, answer string }{{"get", `17`}, {"stat", `{"sise":1}`}, {"put", `[]`}, {"list", `{"objects":7}`}, {"delete", `{"deleted":"yes"}`}} {
		if _, err := d.rehearse(tt.op, `{"name":"x"}`, "", &stand{answer: tt.answer}); problem.From(err).Code != "grant.stand_in_invalid" {
			t.Errorf("%s answered %s = %v; want grant.stand_in_invalid", tt.op, tt.answer, err)
		}
	}

	reply, err := d.rehearse("open", `{"name":"y"}`, "", &stand{})
	if err != nil {
		t.Fatal(err)
	}
	var opened struct {
		Upload string `json:"upload"`
	}
	if err := json.Unmarshal(reply.JSON, &opened); err != nil {
		t.Fatal(err)
	}
	for i, part := range []string{"mi", "ne"} {
		if _, err := d.rehearse("write", fmt.Sprintf(`{"upload":%q,"offset":%d}`, opened.Upload, 2*i), part, &stand{}); err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := d.rehearse("commit", fmt.Sprintf(`{"upload":%q}`, opened.Upload), "", &stand{}); err != nil || string(reply.JSON) != made {
		t.Errorf("commit = %s, %v; want %s", reply.JSON, err, made)
	}
	d.refused("commit", fmt.Sprintf(`{"upload":%q}`, opened.Upload), nil, "grant.blob_no_upload")
	d.wants("x", []byte("real"))
	w.wantsFiles(t, 1)

	for _, tt := range []struct{ op, request, body, code string }{
		{"put", `{"name":""}`, "", "grant.blob_request"},
		{"put", `{"name":"y","digest":"sha256:` + strings.Repeat("0", 64) + `"}`, "", "grant.blob_digest"},
		{"put", `{"name":"y"}`, strings.Repeat("x", 101), "grant.blob_too_large"},
		{"rename", `{"name":"y"}`, "", "grant.blob_request"},
		{"list", `{"limit":-1}`, "", "grant.blob_request"},
		{"write", fmt.Sprintf(`{"upload":%q}`, opened.Upload), "x", "grant.blob_no_upload"},
	} {
		s := &stand{}
		if _, err := d.rehearse(tt.op, tt.request, tt.body, s); problem.From(err).Code != tt.code || s.asked > 0 {
			t.Errorf("rehearsed, %s %.80s = %v; want %s, and nobody asked", tt.op, tt.request, err, tt.code)
		}
	}
}
