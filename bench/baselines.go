package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// roles are the processes that bench starts of itself.
func roles() map[string]func(context.Context, []string) error {
	return map[string]func(context.Context, []string) error{
		"pinned":      pinned,
		"bare":        serveBare,
		"jetstream":   appendJetStream,
		"cells":       runCells,
		"invocations": runInvocations,
		"kills":       runKills,
		"barecalls":   runBareCalls,
		"wakes":       runWakes,
		"baregrants":  runBareGrants,
		"behind":      behind,
		"attack":      runAttack,
	}
}

// serveBare is the baseline of the accept path: net/http over TLS 1.3 that reads the body and
// answers 202. No authentication, no parsing, nothing stored.
func serveBare(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: bench bare DIR")
	}
	cert, err := selfSigned(args[0])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := drain(r.Body); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.WriteHeader(http.StatusAccepted)
		}),
	}
	fmt.Printf("https://%s\n", l.Addr())
	context.AfterFunc(ctx, func() { _ = srv.Close() }) // ServeTLS reports it
	if err := srv.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// selfSigned makes a certificate for the loopback address and leaves it in dir as ca.crt.
func selfSigned(dir string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	pemBytes := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), pemBytes, 0o600); err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// appendJetStream is the baseline of the durable path: an embedded JetStream with sync_always and
// publishers in the same process, nothing else. It prints one line: events, CPU and wall
// nanoseconds, and the median and 99th percentile of the acknowledgement.
func appendJetStream(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("jetstream", flag.ContinueOnError)
	dir := flags.String("dir", "", "store `folder`")
	pack := flags.Int("pack", 1, "events packed in one message")
	publishers := flags.Int("publishers", 64, "concurrent publishers")
	duration := flags.Duration("duration", 4*time.Second, "how long")
	if err := flags.Parse(args); err != nil {
		return err
	}
	js, closeAll, err := openJetStream(ctx, *dir)
	if err != nil {
		return err
	}
	defer closeAll()
	message := slices.Repeat(eventBody(), *pack)
	var events atomic.Int64
	latencies := make([][]time.Duration, *publishers)
	errs := make([]error, *publishers)
	cpu, began := ownCPU(), time.Now()
	var wg sync.WaitGroup
	for i := range *publishers {
		wg.Go(func() {
			for time.Since(began) < *duration {
				sent := time.Now()
				if _, errs[i] = js.Publish(ctx, "bench", message); errs[i] != nil {
					return
				}
				latencies[i] = append(latencies[i], time.Since(sent))
				events.Add(int64(*pack))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	all := slices.Sorted(slices.Values(slices.Concat(latencies...)))
	fmt.Printf("%d %d %d %d %d\n", events.Load(), ownCPU()-cpu, time.Since(began), all[len(all)/2], all[len(all)*99/100])
	return nil
}

// openJetStream starts an embedded server with no listener and makes the stream.
func openJetStream(ctx context.Context, dir string) (jetstream.JetStream, func(), error) {
	const maxPayload = 8 << 20
	srv, err := server.NewServer(&server.Options{
		DontListen: true, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, MaxPayload: maxPayload,
	})
	if err != nil {
		return nil, nil, err
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		return nil, nil, errors.New("embedded JetStream is not ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, nil, err
	}
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "bench", Subjects: []string{"bench"}, Storage: jetstream.FileStorage})
	return js, func() { nc.Close(); srv.Shutdown() }, err
}

// ownCPU is the CPU time, user and system, of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot fail with a valid address
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
