package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// floorServer is the least that a broker could do: it reads a request, checks the batch's CRC-32C, writes it to the partition's file
// and answers; it sends fetched bytes from the file to the socket. It knows only the requests of this package. As null it checks
// and writes nothing.
type floorServer struct {
	dir  string
	null bool

	mu    sync.Mutex
	files map[string]*floorFile
}

type floorFile struct {
	mu      sync.Mutex
	file    *os.File
	size    int64
	batch   int64 // bytes of one batch
	records int64 // in one batch
}

// serveFloor accepts connections until the process ends.
func serveFloor(l net.Listener, dir string, null bool) error {
	s := &floorServer{dir: dir, null: null, files: map[string]*floorFile{}}
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer nc.Close()
			_ = s.serve(nc.(*net.TCPConn)) // its client sees the end
		}()
	}
}

func (s *floorServer) serve(nc *net.TCPConn) error {
	raw, err := nc.SyscallConn()
	if err != nil {
		return err
	}
	c := floorConn{floorServer: s, nc: nc, raw: raw}
	buf := make([]byte, 256<<10)
	have := 0
	for {
		n, err := nc.Read(buf[have:])
		if err != nil {
			return err
		}
		have += n
		at := 0
		for have-at >= 4 {
			size := 4 + int(binary.BigEndian.Uint32(buf[at:]))
			if have-at < size {
				if size > len(buf) {
					buf = append(make([]byte, 0, size+len(buf)), buf[:have]...)
					buf = buf[:cap(buf)]
				}
				break
			}
			if err := c.handle(buf[at : at+size]); err != nil {
				return err
			}
			at += size
		}
		have = copy(buf, buf[at:have])
		if len(c.out) > 0 {
			if _, err := nc.Write(c.out); err != nil {
				return err
			}
			c.out = c.out[:0]
		}
	}
}

type floorConn struct {
	*floorServer
	nc    *net.TCPConn
	raw   syscall.RawConn
	out   []byte
	topic string
	part  int32
	at    *floorFile
}

func (c *floorConn) handle(frame []byte) error {
	key := binary.BigEndian.Uint16(frame[4:])
	body := frame[12:]
	body = body[2+binary.BigEndian.Uint16(body)+1:] // client id, tags
	switch key {
	case 0:
		return c.produce(frame[correlationAt:correlationAt+4], body)
	case 1:
		return c.fetch(frame[correlationAt:correlationAt+4], body)
	}
	return fmt.Errorf("request %d", key)
}

// named reads an array of one topic of one partition.
func (c *floorConn) named(b []byte) (topic []byte, partition int32, rest []byte) {
	n := int(b[1]) - 1
	topic, b = b[2:2+n], b[2+n+1:]
	return topic, int32(binary.BigEndian.Uint32(b)), b[4:]
}

func (c *floorConn) produce(correlation, b []byte) error {
	topic, partition, b := c.named(b[1+2+4:])
	length, n := binary.Uvarint(b)
	records := b[n : n+int(length)-1]
	if !c.null {
		if crc32.Checksum(records[batchAttributeAt:], castagnoli) != binary.BigEndian.Uint32(records[batchCRCAt:]) {
			return errors.New("bad CRC")
		}
		f, err := c.file(topic, partition)
		if err != nil {
			return err
		}
		if err := f.append(records); err != nil {
			return err
		}
	}
	at := len(c.out)
	c.out = append(c.out, 0, 0, 0, 0)
	c.out = append(c.out, correlation...)
	c.out = append(c.out, 0, 2, byte(len(topic))+1)
	c.out = append(c.out, topic...)
	c.out = append(c.out, 2)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(partition))
	c.out = append(c.out, make([]byte, 2+8+8+8)...) // no error, offsets, time
	c.out = append(c.out, 1, 0, 0, 0)               // no record errors, no message, tags
	c.out = append(c.out, 0, 0, 0, 0, 0)            // throttle, tags
	binary.BigEndian.PutUint32(c.out[at:], uint32(len(c.out)-at-4))
	return nil
}

func (f *floorFile) append(records []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.file.WriteAt(records, f.size); err != nil {
		return err
	}
	f.size += int64(len(records))
	f.batch, f.records = int64(len(records)), int64(binary.BigEndian.Uint32(records[batchLastDeltaAt:]))+1
	return nil
}

// file finds a partition's file. The connection remembers the last one.
func (c *floorConn) file(topic []byte, partition int32) (*floorFile, error) {
	if c.at != nil && c.part == partition && c.topic == string(topic) {
		return c.at, nil
	}
	name := fmt.Sprintf("%s-%d", topic, partition)
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[name]
	if f == nil {
		file, err := os.Create(filepath.Join(c.dir, name))
		if err != nil {
			return nil, err
		}
		f = &floorFile{file: file}
		c.files[name] = f
	}
	c.at, c.part, c.topic = f, partition, string(topic)
	return f, nil
}

func (c *floorConn) fetch(correlation, b []byte) error {
	topic, partition, b := c.named(b[4+4+4+4+1+4+4:])
	offset := int64(binary.BigEndian.Uint64(b[4:]))
	most := int64(binary.BigEndian.Uint32(b[4+8+4+8:]))
	f, err := c.file(topic, partition)
	if err != nil {
		return err
	}
	f.mu.Lock()
	pos, size := int64(0), f.size
	if f.records > 0 {
		pos = offset / f.records * f.batch
	}
	f.mu.Unlock()
	length := min(most, size-pos)
	head := append(c.out[:0], 0, 0, 0, 0)
	head = append(head, correlation...)
	head = append(head, make([]byte, 1+4+2+4)...)
	head = append(head, 2, byte(len(topic))+1)
	head = append(head, topic...)
	head = append(head, 2)
	head = binary.BigEndian.AppendUint32(head, uint32(partition))
	head = append(head, make([]byte, 2+8+8+8+1+4)...)
	head = binary.AppendUvarint(head, uint64(length)+1)
	tail := []byte{0, 0, 0}
	binary.BigEndian.PutUint32(head, uint32(len(head)-4+int(length)+len(tail)))
	c.out = head[:0]
	return c.send(head, f.file, pos, length, tail)
}

func (c *floorConn) send(head []byte, file *os.File, pos, length int64, tail []byte) error {
	var failed error
	step := func(fd uintptr) bool {
		for len(head) > 0 {
			n, err := unix.SendmsgN(int(fd), head, nil, nil, unix.MSG_MORE)
			if err != nil {
				failed = err
				return err != unix.EAGAIN
			}
			head = head[n:]
		}
		for length > 0 {
			n, err := unix.Sendfile(int(fd), int(file.Fd()), &pos, int(length))
			if err != nil {
				failed = err
				return err != unix.EAGAIN
			}
			length -= int64(n)
		}
		n, err := unix.Write(int(fd), tail)
		failed = err
		if n > 0 {
			tail = tail[n:]
		}
		return err != unix.EAGAIN
	}
	if err := c.raw.Write(step); err != nil {
		return err
	}
	return failed
}
