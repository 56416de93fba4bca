from .responses import stage_responses
from .robustness import adversarial_accuracy, adversarial_images

__all__ = ['adversarial_accuracy', 'adversarial_images', 'stage_responses']
