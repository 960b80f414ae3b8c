package wire

import (
	"math/bits"
	"sync"

	"ottla/internal/invariant"
)

// Frames are pooled by size class: powers of two from 1 KiB to 4 MiB. Larger ones are left to the collector.
const (
	minFrameClass = 10
	maxFrameClass = 22
)

var framePools [maxFrameClass + 1]sync.Pool

// frame is a buffer with one owner. The owner may let append replace b; recycle puts whatever b is then into the pool.
type frame struct{ b []byte }

// newFrame returns an empty frame with room for n bytes.
func newFrame(n int) *frame {
	class := minFrameClass
	if n > 1<<minFrameClass {
		class = bits.Len(uint(n - 1))
	}
	if class > maxFrameClass {
		return &frame{b: make([]byte, 0, n)}
	}
	if f, ok := framePools[class].Get().(*frame); ok {
		return f
	}
	return &frame{b: make([]byte, 0, 1<<class)}
}

// poison overwrites what recycled frames held in checked builds, so that a late reader fails loudly.
const poison = 0xdb

// recycle ends the frame's life.
func (f *frame) recycle() {
	if invariant.Checked {
		all := f.b[:cap(f.b)]
		for i := range all {
			all[i] = poison
		}
	}
	class := bits.Len(uint(cap(f.b))) - 1 // the largest class that the buffer fills
	if class < minFrameClass || class > maxFrameClass {
		return
	}
	f.b = f.b[:0]
	framePools[class].Put(f)
}

// readBufferBytes is the size of a connection's read buffer. Measured: buffering gains for requests up to this size, a smaller
// buffer costs reads on large ones.
const readBufferBytes = 16 << 10

var readBuffers = sync.Pool{New: func() any { return new([readBufferBytes]byte) }}
