package zkcoord

import "errors"

// ErrFenced: the check of /controller_epoch failed: another controller was elected. Nothing of the multi was done.
var ErrFenced = errors.New("controller moved: /controller_epoch has another version")
