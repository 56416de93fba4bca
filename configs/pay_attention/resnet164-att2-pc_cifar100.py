"""RN-att2-concat-pc on CIFAR-100: 2,430,134 parameters.

ResNet-164 with attention over its stages 2 and 3, scored by <u, l + g>; both together are classified.
The paper has no figure that is known here.
Data: data/cifar100/{train,test}/<class>/*, or under $MMRESATTN_DATA.

    python tools/train.py configs/pay_attention/resnet164-att2-pc_cifar100.py
"""

_base_ = './resnet164-att2-pc_cifar10.py'

model = dict(head=dict(num_classes=100))

data_root = '{{$MMRESATTN_DATA:data}}/cifar100'
data_preprocessor = dict(num_classes=100, mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418])
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root)))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
