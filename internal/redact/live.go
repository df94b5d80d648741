package redact

import (
	"bytes"
	"cmp"
	"sync"
	"sync/atomic"
)

// maxLive bounds the values of a Live, in bytes. Their forms take some twenty times as much memory.
const maxLive = 1 << 20

// Live is a Set whose values come and go, each under a key: for a place that all texts go through, whoever wrote them. When the values have more
// than 1 MiB, those that came first go. It is safe for concurrent use; its zero value is empty, and nil looks for nothing.
type Live struct {
	mu     sync.RWMutex
	values map[string][]byte
	order  []string // of the keys that were put; some are gone
	size   int      // of values
	most   int      // of size; 0 is maxLive
	// made is the Set of the values; nil when they have changed since.
	made atomic.Pointer[madeSet]
}

type madeSet struct{ set *Set }

// Put adds a value under a key, in place of one that is there.
func (l *Live) Put(key string, value []byte) {
	if l == nil {
		return
	}
	l.mu.RLock()
	known := bytes.Equal(l.values[key], value)
	l.mu.RUnlock()
	if known {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.values == nil {
		l.values = map[string][]byte{}
	}
	if _, there := l.values[key]; !there {
		l.order = append(l.order, key)
	}
	l.drop(key)
	l.values[key] = bytes.Clone(value)
	l.size += len(value)
	for l.size > cmp.Or(l.most, maxLive) && l.order[0] != key {
		l.drop(l.order[0])
		l.order = l.order[1:]
	}
	l.made.Store(nil)
}

// Drop removes the value of a key.
func (l *Live) Drop(key string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(key)
	l.made.Store(nil)
}

func (l *Live) drop(key string) {
	v := l.values[key]
	l.size -= len(v)
	clear(v)
	delete(l.values, key)
}

// Cut returns a text without the values, and without the beginning of one that the text ends with: it may have been cut off there.
func (l *Live) Cut(text string) string {
	if l == nil {
		return text
	}
	made := l.made.Load()
	if made == nil {
		made = l.make()
	}
	return made.set.Cut(text)
}

func (l *Live) make() *madeSet {
	l.mu.Lock()
	defer l.mu.Unlock()
	if made := l.made.Load(); made != nil {
		return made
	}
	values := make([][]byte, 0, len(l.values))
	for _, v := range l.values {
		values = append(values, v)
	}
	made := &madeSet{New(values...)}
	l.made.Store(made)
	return made
}

// String keeps the values out of logs.
func (l *Live) String() string { return Mask }

// GoString is String.
func (l *Live) GoString() string { return Mask }
