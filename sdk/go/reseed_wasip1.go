package guest

import (
	"math/rand/v2"
	"unsafe"
)

//go:wasmimport wasi_snapshot_preview1 random_get
func hostRandom(to *uint64, length int32) int32

// random is the runtime's generator, once it was searched. A reactor has one: it has one thread.
var random struct {
	searched, found bool
	generator       generator
}

// promise is the call the host makes after initialisation, to learn whether each event may begin
// with the memory as it is then: 0 promises that enter draws new random numbers.
//
//go:wasmexport sallyport_reseed
func promise() int32 {
	if !random.searched {
		random.generator, random.found = findGenerator(staticMemory(), rand.Uint64)
		random.found = random.found && random.generator.hasCheap(chooseReady)
		random.searched = true
	}
	if !random.found {
		return statusFailed
	}
	reseed()
	rehearse()
	return statusDone
}

// reseed gives the runtime's generators new keys, if the host was promised that.
func reseed() {
	if !random.found {
		return
	}
	var fresh [keyWords + 1]uint64
	if errno := hostRandom(&fresh[0], int32(unsafe.Sizeof(fresh))); errno != 0 {
		panic("the host has no random numbers")
	}
	random.generator.rekey([keyWords]uint64(fresh[:]))
	random.generator[cheapWord] = fresh[keyWords]
	for _, f := range reseeders {
		f()
	}
}

// chooseReady has the runtime choose one of two channels, for which it draws from its cheap generator.
func chooseReady() {
	a, b := make(chan int), make(chan int)
	close(a)
	close(b)
	select {
	case <-a:
	case <-b:
	}
}

// heapMark is on the heap, and so beyond all static memory.
var heapMark *uint64

// staticMemory is the program's static memory, in which the runtime has the state of its one thread.
// That no name leads to that state is why this, alone, is unsafe: it reads and writes the program's
// own memory from the first address that Go uses to the heap, as numbers, and what it writes is
// only what findGenerator and rekey do.
func staticMemory() []uint64 {
	const first = 4096
	heapMark = new(uint64)
	end := uintptr(unsafe.Pointer(heapMark))
	return unsafe.Slice((*uint64)(unsafe.Add(unsafe.Pointer(nil), first)), (end-first)/8)
}
