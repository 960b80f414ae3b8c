//go:build !linux

package wire

import (
	"errors"
	"net"
	"syscall"
)

var errShortFile = errors.New("file ends before the announced records")

// rawConn is nil: reads and writes go through the blocking interface of package net.
func rawConn(net.Conn) syscall.RawConn { return nil }

func (c *Conn) tryRead(uintptr) bool { return true }

func (c *Conn) tryWrite(uintptr) bool { return true }

func tuneDialled(string, string, syscall.RawConn) error { return nil }
