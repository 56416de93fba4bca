from .show_attend_tell import AttendTellDecoder, ShowAttendTell, doubly_stochastic, hard_attention_loss
from .vocabulary import Vocabulary, words_of

__all__ = ['AttendTellDecoder', 'ShowAttendTell', 'Vocabulary', 'doubly_stochastic', 'hard_attention_loss', 'words_of']
