// Command payments stands in for a payment service in the webshop: the run script starts it, and the function confirm
// reaches it by its http grant. It takes one charge for an order, however often it is asked, and writes a line for each request.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8610", "where to listen")
	keyFile := flag.String("key-file", "", "file with the key that callers must have; without it, none is asked for")
	flag.Parse()
	log.SetFlags(0)
	key := ""
	if *keyFile != "" {
		text, err := os.ReadFile(*keyFile)
		if err != nil {
			log.Fatal(err)
		}
		key = strings.TrimSpace(string(text))
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("payments listens on http://%s", l.Addr())
	s := &http.Server{Handler: newService(key), ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(s.Serve(l))
}

// service knows the charges it has taken.
type service struct {
	key     string
	mu      sync.Mutex
	charges map[string]charge
}

type charge struct {
	Order    string `json:"order"`
	Customer string `json:"customer"`
	Status   string `json:"status"`
	Receipt  string `json:"receipt"`
}

func newService(key string) http.Handler {
	s := &service{key: key, charges: map[string]charge{}}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/charges/{order}", s.put)
	return mux
}

// put takes a charge. Doing so again changes nothing: an event may be handled more than once.
func (s *service) put(w http.ResponseWriter, r *http.Request) {
	if s.key != "" && r.Header.Get("Authorization") != "Bearer "+s.key {
		log.Printf("PUT %s: a wrong key, or none", r.URL.EscapedPath())
		http.Error(w, `{"error":"who are you?"}`, http.StatusUnauthorized)
		return
	}
	var asked struct {
		Customer string `json:"customer"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&asked); err != nil || asked.Customer == "" {
		http.Error(w, `{"error":"whose charge is it?"}`, http.StatusBadRequest)
		return
	}
	order := r.PathValue("order")
	s.mu.Lock()
	c, again := s.charges[order]
	if !again {
		c = charge{Order: order, Customer: asked.Customer, Status: "captured", Receipt: fmt.Sprintf("r-%d", 1+len(s.charges))}
		s.charges[order] = c
	}
	s.mu.Unlock()
	log.Printf("PUT %s: %s, receipt %s", r.URL.EscapedPath(), c.Status, c.Receipt)
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(c); err != nil {
		log.Print(err)
	}
}
