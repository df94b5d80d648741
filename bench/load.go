package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// target is where load goes.
type target struct {
	address string         // host:port
	roots   *x509.CertPool // nil for no TLS
	path    string
	token   string
}

func newTarget(url, caFile, tokenFile, path string) (*target, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	t := &target{address: strings.TrimPrefix(url, "https://"), roots: x509.NewCertPool(), path: path}
	if !t.roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", caFile)
	}
	if tokenFile != "" {
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, err
		}
		t.token = strings.TrimSpace(string(token))
	}
	return t, nil
}

// connection is one keep-alive HTTP/1.1 connection that writes prepared bytes and reads as little
// as it can: the generator has one processor, and its own cost must not be what is measured.
type connection struct {
	conn net.Conn
	in   *bufio.Reader
	out  bytes.Buffer
}

func (t *target) dial(ctx context.Context) (*connection, error) {
	if t.roots == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.address)
		if err != nil {
			return nil, err
		}
		return &connection{conn: conn, in: bufio.NewReaderSize(conn, 32<<10)}, nil
	}
	d := tls.Dialer{Config: &tls.Config{RootCAs: t.roots, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}}
	conn, err := d.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	return &connection{conn: conn, in: bufio.NewReaderSize(conn, 32<<10)}, nil
}

// post sends one request and returns the status of its answer.
func (c *connection) post(t *target, header string, body []byte) (int, error) {
	c.out.Reset()
	fmt.Fprintf(&c.out, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n%s\r\n",
		t.path, t.address, t.token, len(body), header)
	c.out.Write(body)
	if _, err := c.conn.Write(c.out.Bytes()); err != nil {
		return 0, err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("status line %q", line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, err
	}
	length := 0
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
	_, err = c.in.Discard(length)
	return status, err
}

// load is one run of the generator.
type load struct {
	target   *target
	clients  int
	duration time.Duration
	// rate, when positive, is the events a second offered over all clients (open loop, as far as
	// the connections allow); zero sends as fast as answers come.
	rate float64
	// request returns the header lines and the body of the n-th request and how many events it holds.
	request func(n int64) (string, []byte, int)
	want    int
}

// run drives the load at p and returns what it cost.
func (l load) run(ctx context.Context, p *process) (sample, error) {
	conns := make([]*connection, l.clients)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.conn.Close() // the run is over
			}
		}
	}()
	var next, events, failed atomic.Int64
	for i := range conns {
		c, err := l.target.dial(ctx)
		if err != nil {
			return sample{}, err
		}
		conns[i] = c
	}
	before, err := p.cpu()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	latencies := make([][]time.Duration, l.clients)
	errs := make([]error, l.clients)
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			for time.Since(began) < l.duration && ctx.Err() == nil {
				n := next.Add(1)
				if l.rate > 0 {
					due := began.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
					if wait := time.Until(due); wait > 0 {
						time.Sleep(wait) // pacing an open loop is what this sleep is for
					}
				}
				header, body, count := l.request(n)
				sent := time.Now()
				status, err := c.post(l.target, header, body)
				if err != nil {
					errs[i] = err
					return
				}
				latencies[i] = append(latencies[i], time.Since(sent))
				if status == l.want {
					events.Add(int64(count))
				} else {
					failed.Add(int64(count))
				}
			}
		})
	}
	wg.Wait()
	wall := time.Since(began)
	after, err := p.cpu()
	if err := errors.Join(append(errs, err)...); err != nil {
		return sample{}, fmt.Errorf("%w\n%s", err, p.log.String())
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	s := sample{Events: int(events.Load()), Failed: int(failed.Load()), CPU: after - before, Wall: wall}
	if len(all) == 0 || s.Events == 0 {
		return s, fmt.Errorf("no request succeeded (%d failed)\n%s", s.Failed, p.log.String())
	}
	s.P50, s.P99 = all[len(all)/2], all[len(all)*99/100]
	return s, nil
}

// eventBody is the data of every event: an order of 1 KiB.
func eventBody() []byte {
	b := []byte(`{"id":"o-1","customer":"c-42","total":1999,"currency":"EUR","items":[{"sku":"book-1","quantity":1,"price":999},{"sku":"pen-7","quantity":2,"price":500}],"note":"`)
	const size = 1024
	b = append(b, bytes.Repeat([]byte("leave it at the door, please. "), size)[:size-len(b)-2]...)
	return append(b, `"}`...)
}

// singles makes requests of one event each, in the binary mode of CloudEvents.
func singles(run string) func(int64) (string, []byte, int) {
	body := eventBody()
	return func(n int64) (string, []byte, int) {
		return "Content-Type: application/json\r\nCe-Specversion: 1.0\r\nCe-Type: bench.event\r\nCe-Source: /bench\r\nCe-Id: " +
			run + "-" + strconv.FormatInt(n, 10) + "\r\n", body, 1
	}
}

// batches makes requests of size events each, in the batch mode of CloudEvents.
func batches(run string, size int) func(int64) (string, []byte, int) {
	data := eventBody()
	return func(n int64) (string, []byte, int) {
		b := make([]byte, 0, size*(len(data)+120))
		b = append(b, '[')
		for i := range size {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"specversion":"1.0","type":"bench.event","source":"/bench","id":"`...)
			b = append(b, run...)
			b = append(b, '-')
			b = strconv.AppendInt(b, n, 10)
			b = append(b, '-')
			b = strconv.AppendInt(b, int64(i), 10)
			b = append(b, `","datacontenttype":"application/json","data":`...)
			b = append(b, data...)
			b = append(b, '}')
		}
		return "Content-Type: application/cloudevents-batch+json\r\n", append(b, ']'), size
	}
}

// drain reads a reader to its end, for the bare baseline.
func drain(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
